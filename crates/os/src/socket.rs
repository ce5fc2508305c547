//! Shared by [`crate::udp`] and [`crate::ping`]: addresses, control messages and options in the kernel's layout, and
//! the system calls that use them.
//!
//! The layouts are written and read byte by byte, so that only the calls themselves are unsafe.

mod address;
mod control;
mod message;
mod option;

pub(crate) use address::RawAddress;
pub(crate) use control::{ControlBuffer, ControlMessage, control_messages};
pub(crate) use message::{MESSAGES_MAX, Outcome, Outgoing, receive, receive_many, send, send_many};
pub(crate) use option::{bind_to_device, memory_of, option, set_option};
