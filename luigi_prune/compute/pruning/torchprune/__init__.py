"""The rules of the reference implementation, torchprune, if they differ from the papers."""
