from pathlib import Path

import clit_zoo

model = clit_zoo.from_pretrained("edsr-light-lit")
large = model.upscale(Path(__file__).with_name("astronaut.png"), scale=3.7)
large.save("astronaut_x3.7.png")
