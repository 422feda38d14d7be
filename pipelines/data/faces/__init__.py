"""Analyse a face: detection, landmarks, pose, identity embedding, captions, quality."""
