"""The emoji demo: owners under different licences, one public backbone (science.md section 7)."""
