"""What ``clit-zoo serve`` shows: pictures, each part of them decoded for the scale one looks at."""
