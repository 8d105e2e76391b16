"""From jobs and errors to the bodies, links and codes of the wire."""
