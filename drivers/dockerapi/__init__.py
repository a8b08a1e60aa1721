"""What the drivers of Docker Engine's API share: connecting, errors, images, streams, containers. No driver itself."""
