//! The numbers by which this network namespace refers to others in requests and notices.

use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::StreamExt;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};

use super::{Netlink, NetlinkError, classify};

/// In a request: any free number. In an answer: the namespace has no number.
const NO_NUMBER: i32 = -1;

impl Netlink {
    /// The number by which this namespace knows the one that `namespace` refers to. If it has no number yet, one is
    /// assigned. The number lasts until either namespace is gone, and keeps neither of them alive.
    ///
    /// # Errors
    /// See [`NetlinkError`]. `NotFound` for a namespace that is being deleted.
    pub async fn number_namespace(&self, namespace: BorrowedFd<'_>) -> Result<i32, NetlinkError> {
        if let Some(number) = self.number_of(namespace).await? {
            return Ok(number);
        }
        let message = about(namespace, Some(NO_NUMBER));
        match self.request(RouteNetlinkMessage::NewNsId(message), 0).await {
            // Someone else, perhaps the kernel, assigned a number in the meantime.
            Ok(()) | Err(NetlinkError::Exists) => {}
            Err(error) => return Err(error),
        }
        self.number_of(namespace).await?.ok_or(NetlinkError::NotFound)
    }

    async fn number_of(&self, namespace: BorrowedFd<'_>) -> Result<Option<i32>, NetlinkError> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(about(namespace, None)));
        request.header.flags = NLM_F_REQUEST;
        let mut answers = self.handle.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(message)) => {
                    let number = message.attributes.iter().find_map(|attribute| match attribute {
                        NsidAttribute::Id(number) => Some(*number),
                        _ => None,
                    });
                    return Ok(number.filter(|number| *number >= 0));
                }
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(classify(error.to_io())),
                _ => {}
            }
        }
        Ok(None)
    }
}

fn about(namespace: BorrowedFd<'_>, number: Option<i32>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd() as u32));
    message.attributes.extend(number.map(NsidAttribute::Id));
    message
}
