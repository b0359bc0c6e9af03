"""What a checkpoint is and where it lives. This is code; no checkpoint is ever kept in this folder."""
