"""The world: sockets, files, the clock. Start reading at app.py."""
