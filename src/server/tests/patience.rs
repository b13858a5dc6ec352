//! How long clients are waited for.

use super::{HELLO, Limits, Running, SOON, within};

#[tokio::test]
async fn a_half_sent_head_is_cut_in_its_time() {
    let server = Running::plain(Limits { head_timeout: SOON, ..Limits::default() });
    for start in ["", "P", "GET / HTTP/1.1\r\nHo", "PRI * HTTP/2.0\r\n"] {
        assert_eq!(server.ask(start).await, "", "{start}");
    }
    let mut wire = server.connect().await;
    wire.send(HELLO).await;
    wire.until("hello").await;
    wire.send("GET / HT").await;
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_its_time() {
    let server = Running::plain(Limits { idle_timeout: SOON, ..Limits::default() });
    assert!(server.ask(HELLO).await.ends_with("hello"));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let server = Running::plain(Limits { stall_timeout: SOON, ..Limits::default() });
    let mut wire = server.connect().await;
    wire.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await;
    // The body has no end: that the connection ends, with the last chunk missing, is the server's doing.
    // Until then nothing is read; the server's slot tells when it is over.
    server.stop();
    let Running { ended, .. } = server;
    within(ended).await.expect("no panic");
    assert!(!wire.rest().await.ends_with("0\r\n\r\n"));
}
