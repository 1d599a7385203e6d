"""What the commands do, one file per concern: takes clients, returns dataclasses or iterators, never prints."""
