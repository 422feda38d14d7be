"""Small replacements for SD1.5, CLIP and the face models, in their real classes and layouts."""
