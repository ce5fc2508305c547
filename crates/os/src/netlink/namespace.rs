//! Numbers of other network namespaces: what this one calls them in requests and notices.

use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::StreamExt;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};

use super::{Netlink, NetlinkError, classify};

/// Asks for any number that is free; in an answer: there is none.
const NO_NUMBER: i32 = -1;

impl Netlink {
    /// The number by which this namespace knows the one that `namespace` is open on. One that has none is given one,
    /// which lasts until either of the two is gone and keeps neither in existence.
    ///
    /// # Errors
    /// See [`NetlinkError`]; `NotFound` for a namespace that is going away.
    pub async fn number_namespace(&self, namespace: BorrowedFd<'_>) -> Result<i32, NetlinkError> {
        if let Some(number) = self.number_of(namespace).await? {
            return Ok(number);
        }
        let message = about(namespace, Some(NO_NUMBER));
        match self.request(RouteNetlinkMessage::NewNsId(message), 0).await {
            // Somebody else, perhaps the kernel, was faster.
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
