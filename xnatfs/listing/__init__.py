"""What is on the server: listed once, held, brought up to date, proven."""
