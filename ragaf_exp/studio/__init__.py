"""The studio: a local web server to draw, describe the regions of the drawing, and watch the image form."""
