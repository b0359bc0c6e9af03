"""Chats become training conversations: read, convert, filter, deduplicate, split, look at."""
