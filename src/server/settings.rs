//! `virtsecretd.conf`, typed.
