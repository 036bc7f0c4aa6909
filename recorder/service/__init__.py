"""The service `recorder run`: what carries the messages of buses into a recorder, and runs it as a process."""
