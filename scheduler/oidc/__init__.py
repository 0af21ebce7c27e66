"""The door to an OpenID issuer: its keys, its tokens, and the sign-in on the page."""
