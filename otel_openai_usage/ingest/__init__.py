"""Events that meter single responses: parser, listener, tokens, intake, coverage."""
