//! What may be typed after `strongroomd`.
