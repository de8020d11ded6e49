"""What both packages share and knows neither: training, files, convolutions."""
