//! Which process stands behind a resource's spans.
