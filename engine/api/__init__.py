"""The pool over HTTP."""
