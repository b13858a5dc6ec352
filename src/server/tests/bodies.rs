//! Requests with bodies that nobody reads.

use super::{HELLO, Limits, Running, SOON, status};

#[tokio::test]
async fn a_body_is_ignored_and_its_answer_is_the_last_on_its_connection() {
    let server = Running::plain(Limits::default());
    for request in [
        format!("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{HELLO}", HELLO.len()),
        format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{HELLO}", HELLO.len()),
        // One that never comes.
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n".to_owned(),
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\nExpect: 100-continue\r\n\r\n".to_owned(),
    ] {
        let answer = server.ask(&request).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request}: {answer}");
        assert_eq!(status(&answer), "200", "{request}");
        assert!(answer.contains("connection: close\r\n"), "{request}: {answer}");
    }
    // None at all is no reason to close.
    let mut wire = server.connect().await;
    wire.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    wire.until("hello").await;
    wire.send("GET /ten HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(wire.rest().await.ends_with("0123456789"));
}

#[tokio::test]
async fn a_client_that_sends_all_of_a_refused_body_first_still_reads_why() {
    let server = Running::plain(Limits::default());
    for head in ["Content-Length: 33554432", "Transfer-Encoding: chunked"] {
        let mut wire = server.connect().await;
        wire.send(format!("PUT / HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n")).await;
        // More than the sockets' buffers hold.
        for _ in 0..512 {
            wire.send(vec![b'x'; 64 * 1024]).await;
        }
        assert!(wire.rest().await.contains("connection: close\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_client_that_stops_sending_a_refused_body_is_not_waited_for() {
    let server = Running::plain(Limits::default());
    let mut wire = server.connect().await;
    wire.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n").await;
    wire.until("hello").await;
    server.stop();
    // Although the client holds its side.
    server.ended().await;
    drop(wire);
}

#[tokio::test]
async fn a_client_that_takes_longer_for_a_refused_body_than_for_a_head_still_reads_why() {
    let server = Running::plain(Limits { head_timeout: SOON, ..Limits::default() });
    let mut wire = server.connect().await;
    wire.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n").await;
    for _ in 0..10 {
        wire.send([b'x'; 1024]).await;
        tokio::time::sleep(SOON / 2).await;
    }
    let answer = wire.rest().await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("hello"), "{answer}");
}
