//! Authentication of local users by polkit.
