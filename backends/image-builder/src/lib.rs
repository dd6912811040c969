//! The `image-builder` backend: sends the build context to Together's image-builder and follows its log; and
//! what makes a Together snapshot of an image: [`together`].

pub mod together;

/// The name of this type of backend.
pub const TYPE: &str = "image-builder";
