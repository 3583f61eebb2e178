//! The fault lab: a chain of real services on a stage of its own, faults put into it at
//! random from a seed, and how often the agent names the fault, its cause and its culprit.
//!
//! One direction: [`plan`] (seed to runs) -> [`run`] ([`fault`] into [`stage`] under [`load`])
//! -> [`score`] (what the [`sink`] received against what was done) -> [`report`].
//!
//! What is true is known from the injector, and from the kernel's own books
//! ([`sampler`], [`group`]); nothing of it is asked of the agent.

pub mod cli;
pub mod expect;
pub mod fault;
pub mod group;
pub mod hidden;
pub mod incidents;
pub mod load;
pub mod network;
pub mod peer;
pub mod plan;
pub mod report;
pub mod run;
pub mod sampler;
pub mod score;
pub mod service;
pub mod sink;
pub mod slow_disk;
pub mod stage;
