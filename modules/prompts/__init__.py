"""From the text of a prompt to weighted chunks of tokens for every model call; pure, and no text makes it raise."""
