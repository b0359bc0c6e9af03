"""Chats to training conversations: convert, filter, deduplicate, split."""
