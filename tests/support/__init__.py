"""What the tests stand on: real servers on loopback, and the small tools to start, break and await them."""
