//! The exact text that `wg` reads, and the fate of callers that send anything else.

use overlay_core::Instant;
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::uapi::set::tests::text;
use crate::view::tests::{bob, interface, nameless, shake_hands, view};

/// Sends this to a served socket, closes the sending side, and returns the whole answer. The device accepts every change.
async fn exchange(view: Arc<View>, question: &[u8]) -> String {
    exchange_with(view, question, |_| Ok(())).await
}

/// The same with a device that decides for itself.
async fn exchange_with(
    view: Arc<View>,
    question: &[u8],
    mut device: impl FnMut(Vec<Change>) -> Result<(), ChangeError> + Send + 'static,
) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("ov0.sock");
    let listener = socket::bind(&path, 0o600, None).expect("a socket");
    let (settings, mut asked) = mpsc::channel::<Setting>(1);
    let server = tokio::spawn(serve(listener, view, settings));
    let device = tokio::spawn(async move {
        while let Some(setting) = asked.recv().await {
            let _ = setting.reply.send(device(setting.changes));
        }
    });
    let mut stream = UnixStream::connect(&path).await.expect("a connection");
    // The server may have hung up already, which is also an answer.
    let _ = stream.write_all(question).await;
    let _ = stream.shutdown().await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    server.abort();
    device.abort();
    answer
}

#[tokio::test]
async fn get_lists_the_interface_and_every_peer() {
    let view = view([bob(), nameless()]);
    shake_hands(&view, 0xbb, Instant::default(), 1_700_000_123);
    let mut marked = interface();
    marked.fwmark = Some(51820);
    view.table().set_interface(marked);
    let hex = |byte: &str| byte.repeat(32);
    let expected = [
        &format!("private_key=10{}51", "11".repeat(30)),
        "listen_port=51820",
        "fwmark=51820",
        &format!("public_key={}", hex("bb")),
        &format!("preshared_key={}", hex("00")),
        "protocol_version=1",
        "endpoint=203.0.113.7:51820",
        "last_handshake_time_sec=1700000123",
        "last_handshake_time_nsec=5000",
        "tx_bytes=0",
        "rx_bytes=0",
        "persistent_keepalive_interval=0",
        "allowed_ip=10.77.0.2/32",
        &format!("public_key={}", hex("cc")),
        &format!("preshared_key={}", hex("dd")),
        "protocol_version=1",
        "last_handshake_time_sec=0",
        "last_handshake_time_nsec=0",
        "tx_bytes=0",
        "rx_bytes=0",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.77.0.3/32",
        "allowed_ip=fd00::/64",
        "errno=0",
        "\n",
    ];
    assert_eq!(exchange(view, b"get=1\n\n").await, expected.join("\n"));
}

#[test]
fn what_was_received_is_rx_and_what_was_sent_is_tx() {
    let view = view([bob()]);
    let state = view.table().read();
    let mut out = String::new();
    get::print_peer(&mut out, state.peers()[0], 1_000, 2_000);
    assert!(out.contains("tx_bytes=2000\nrx_bytes=1000\n"), "{out}");
}

#[tokio::test]
async fn without_a_private_key_get_shows_none() {
    let view = view([]);
    view.table().set_private_keys(None, Vec::new());
    assert_eq!(exchange(view, b"get=1\n\n").await, "listen_port=51820\nerrno=0\n\n");
}

#[tokio::test]
async fn several_operations_fit_one_connection() {
    let answer = exchange(view([]), b"set=1\nlisten_port=7\n\nset=1\nhello=1\n\nget=1\n\n").await;
    assert!(answer.starts_with("errno=0\n\nerrno=-22\n\nprivate_key="), "{answer}");
    assert!(answer.ends_with("\nerrno=0\n\n"), "{answer}");
}

#[tokio::test]
async fn what_the_device_says_is_answered_with_a_number_that_wg_can_name() {
    let refused = |kind| ChangeError::Refused(kind);
    for (error, number) in [
        (ChangeError::PortInUse, -98),
        (ChangeError::TooManyPeers, -22),
        (refused(io::ErrorKind::PermissionDenied), -13),
        (refused(io::ErrorKind::Other), -5),
    ] {
        let mut error = Some(error);
        let device = move |_| error.take().map_or(Ok(()), Err);
        let answer = exchange_with(view([]), b"set=1\nlisten_port=7\n\n", device).await;
        assert_eq!(answer, format!("errno={number}\n\n"));
    }
}

#[tokio::test]
async fn what_came_before_a_mistake_is_made_and_what_comes_after_is_not() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let device = move |changes: Vec<Change>| {
        let _ = sender.send(changes.iter().map(text).collect::<Vec<_>>());
        Ok(())
    };
    let question = b"set=1\nlisten_port=7\nfwmark=x\nlisten_port=8\n\n";
    assert_eq!(exchange_with(view([]), question, device).await, "errno=-22\n\n");
    assert_eq!(receiver.recv().expect("the device was asked"), ["port 7"]);
}

#[tokio::test]
async fn what_is_no_operation_ends_the_conversation() {
    for question in [&b"\n"[..], b"hello\n\n", b"get=2\n\n", b"get=1\nlisten_port=1\n\n", b"get=1"] {
        assert_eq!(exchange(view([]), question).await, "errno=71\n\n", "{question:?}");
    }
    assert_eq!(exchange(view([]), b"").await, "");
}

#[tokio::test]
async fn a_line_and_an_operation_have_their_bounds() {
    let shape = |operation: Option<Operation>| match operation {
        Some(Operation::Set(_)) => "set",
        Some(Operation::Get) => "get",
        Some(Operation::SetBeyondBounds) => "beyond",
        Some(Operation::Unknown) => "unknown",
        None => "none",
    };
    let mut long = b"set=1\n".to_vec();
    long.resize(6 + MAX_LINE, b'x');
    long.extend(b"\n\nnext");
    let mut rest = &long[..];
    let read = read_operation(&mut rest).await.expect("reading from memory");
    assert_eq!((shape(read), rest), ("beyond", &b"next"[..]), "it is read to its end");
    let endless = read_operation(&mut &[b'x'; 2 * MAX_LINE][..]).await.expect("reading from memory");
    assert_eq!(shape(endless), "unknown");

    let mut fits = b"set=1\n".to_vec();
    fits.resize(6 + MAX_LINE - 1, b'x');
    fits.extend(b"\n\n");
    let read = read_operation(&mut &fits[..]).await.expect("reading from memory");
    assert_eq!(shape(read), "set");

    let lines = |count: usize| [&b"set=1\n"[..], &b"a=b\n".repeat(count), b"\n"].concat();
    let read = read_operation(&mut &lines(MAX_LINES - 2)[..]).await.expect("reading from memory");
    assert_eq!(shape(read), "set");
    for too_many in [MAX_LINES - 1, MAX_LINES, MAX_LINES + 1000] {
        let lines = [&lines(too_many)[..], b"get=1\n\n"].concat();
        let mut rest = &lines[..];
        let read = read_operation(&mut rest).await.expect("reading from memory");
        assert_eq!((shape(read), rest), ("beyond", &b"get=1\n\n"[..]), "it is read to its end");
    }
}

#[tokio::test]
async fn an_operation_beyond_the_bounds_is_answered_after_its_last_line_and_not_made() {
    let device = |_| panic!("nothing of it is made");
    let question = [&b"set=1\n"[..], &b"fwmark=1\n".repeat(MAX_LINES + 1000), b"\n"].concat();
    assert_eq!(exchange_with(view([]), &question, device).await, "errno=-7\n\n");
}

#[tokio::test(start_paused = true)]
async fn patience_is_for_each_operation_and_ends() {
    let (mut stream, served) = UnixStream::pair().expect("two ends");
    let (settings, _nobody) = mpsc::channel(1);
    let view = view([]);
    let conversation = tokio::spawn(async move { converse(served, &view, &settings).await });
    for _ in 0..3 {
        tokio::time::sleep(PATIENCE * 2 / 3).await;
        stream.write_all(b"get=1\n\n").await.expect("it is still listening");
        let mut answer = [0; 512];
        let length = stream.read(&mut answer).await.expect("an answer");
        assert!(answer[..length].ends_with(b"errno=0\n\n"));
    }
    stream.write_all(b"set=1\n").await.expect("it is still listening");
    let began = tokio::time::Instant::now();
    assert_eq!(stream.read(&mut [0; 8]).await.expect("the end"), 0);
    assert!(began.elapsed() <= PATIENCE);
    let ended = conversation.await.expect("no panic").expect_err("it stalled");
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
}
