//! How a server and its connections end.

use tokio::net::TcpStream;

use super::super::health;
use super::tls::install_provider;
use super::{HELLO, Limits, Running, SOON, Wire, within};

#[tokio::test]
async fn asked_to_stop_it_closes_the_door_and_lets_answers_end() {
    let server = Running::plain(Limits::default());
    let mut idle = server.connect().await;
    idle.send(HELLO).await;
    idle.until("hello").await;
    let mut busy = server.connect().await;
    busy.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.fake.begun.notified().await;

    server.lifecycle.set_ready();
    server.stop();
    assert_eq!(idle.rest().await, "");
    // The idle connection was told after the listening sockets' tasks were.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let page = health::page("/-/ready", true, &server.lifecycle, &recorder.handle());
    assert_eq!(page.status, 503);
    assert!(!server.ended.is_finished());

    server.fake.gate.notify_one();
    let answer = busy.rest().await;
    assert!(answer.ends_with("at last"), "{answer}");
    server.ended().await;
}

#[tokio::test]
async fn asked_twice_it_cuts_what_is_left() {
    let server = Running::plain(Limits::default());
    let mut busy = server.connect().await;
    busy.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.fake.begun.notified().await;
    server.stop();
    server.stop();
    server.ended().await;
    assert_eq!(busy.rest().await, "");
}

#[tokio::test]
async fn what_does_not_end_in_the_drain_time_is_cut() {
    let server = Running::plain(Limits { drain_timeout: SOON, ..Limits::default() });
    let mut busy = server.connect().await;
    busy.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.fake.begun.notified().await;
    server.stop();
    server.ended().await;
    assert_eq!(busy.rest().await, "");
}

#[tokio::test]
async fn asked_to_stop_an_http2_connection_ends_after_its_answers() {
    let server = Running::plain(Limits::default());
    install_provider();
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let asked = tokio::spawn(client.get(format!("http://{}/slow", server.address)).send());
    server.fake.begun.notified().await;
    server.stop();
    server.fake.gate.notify_one();
    let answer = within(asked).await.expect("no panic").expect("answers");
    assert_eq!(answer.text().await.expect("a body"), "at last");
    server.ended().await;
}

#[tokio::test]
async fn a_stream_of_requests_to_stop_that_ends_stops_nothing() {
    let server = Running::plain(Limits::default());
    let Running { address, stop, ended, .. } = server;
    drop(stop);
    let mut wire = Wire(TcpStream::connect(address).await.expect("connects"));
    wire.send(HELLO).await;
    wire.until("hello").await;
    assert!(!ended.is_finished());
    ended.abort();
}
