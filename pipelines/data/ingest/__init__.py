"""From files as people keep them to rows of `data/faces`: layouts, headers, shards."""
