//! The daemon: starts everything, connects the stages, stops in order.
