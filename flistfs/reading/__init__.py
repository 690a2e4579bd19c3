"""The sealed side: flists that are done."""
