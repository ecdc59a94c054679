"""Long videos, frame by frame: reading, generated worlds, frame-autoregressive models, measures."""
