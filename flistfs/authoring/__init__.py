"""The writable side: a session's journal and spool, the file system over them, uploads and the seal."""
