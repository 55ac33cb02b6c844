//! What the function has to do with AWS's own services and libraries.

pub mod tls_roots;
