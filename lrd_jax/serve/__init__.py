"""OpenAI's API over engines, and the canvas in a browser, see docs/serving.md."""
