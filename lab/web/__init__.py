"""The live page (`lab serve`, docs/serve.md): who may ask, the race as it goes on, and the pages of what is stored."""
