"""One figure a file; each takes data and draws, none reads files. `style` holds what they share."""
