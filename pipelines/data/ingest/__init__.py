"""Read photos in common layouts and write them as rows of `data/faces`: layouts, headers, shards."""
