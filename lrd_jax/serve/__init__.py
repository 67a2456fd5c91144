"""OpenAI's API over engines, and the canvas in a browser, see docs/serve.md."""
