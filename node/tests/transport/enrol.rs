//! New nodes that come by their certificates with a join token.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringhold::client::{Client, Error as ClientError, Options};
use ringhold_cluster::enrol::{EnrolRefused, Error, Outcome, enrol};
use ringhold_cluster::network::{Network, RealNetwork};
use ringhold_cluster::peers::{PeerHello, PeerName, PeerRefused, PeerService, Peers};
use ringhold_cluster::tls::{Authority, Files, Identity, Role, Token};
use ringhold_cluster::transport;
use ringhold_cluster::wire::{self, Close, Preamble, Refused, StreamKind};

use crate::harness::{Echo, Node, closed, until};
use crate::peers::{Member, SOON, refused};

const HOUR: Duration = Duration::from_secs(3_600);

/// A node with its certificates on disk, as the first one of a cluster has them.
struct Founder {
    temp: tempfile::TempDir,
    network: Arc<dyn Network>,
    member: Member,
}

impl Founder {
    fn start() -> Founder {
        let network: Arc<dyn Network> = Arc::new(RealNetwork);
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("founder/tls");
        fs::create_dir(temp.path().join("founder")).unwrap();
        Authority::open_or_create(&folder, &*network).unwrap();
        let member = member(&network, &folder, 1);
        Founder { temp, network, member }
    }

    fn token(&self, validity: Duration) -> Token {
        let token = Authority::of(&self.member.identity).unwrap().token("tests", validity, &*self.network).unwrap();
        // As it is handed on.
        token.to_string().parse().unwrap()
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.temp.path().join(name).join("tls")
    }

    async fn enrol(&self, token: &Token, name: &str) -> Result<Outcome, Error> {
        enrol(&self.network, token, &[self.member.address()], &self.folder(name)).await
    }
}

fn node(folder: &Path) -> Identity {
    Identity::load(Files::node(folder), Role::Node, &RealNetwork).unwrap()
}

fn member(network: &Arc<dyn Network>, folder: &Path, id: u8) -> Member {
    let name = PeerName { id: [id; 16], name: format!("n{id}"), ..PeerName::default() };
    let hello = PeerHello { cluster: Some([1; 16]), ..PeerHello::new("ringhold test", name) };
    Member::start_as(network, node(folder), hello, "127.0.0.1:0".parse().unwrap())
}

fn why(outcome: Result<Outcome, Error>) -> EnrolRefused {
    match outcome.unwrap_err() {
        Error::Refused { refused, .. } => refused,
        other => panic!("not refused but: {other}"),
    }
}

#[tokio::test]
async fn a_node_joins_with_a_token_and_can_let_in_others() {
    let founder = Founder::start();
    let token = founder.token(HOUR);
    let outcome = founder.enrol(&token, "second").await.unwrap();
    assert_eq!(outcome, Outcome::Enrolled { by: founder.member.address() });
    assert_eq!(founder.member.counted("enrolled"), 1);
    let used = founder.member.echo.used.lock().clone();
    assert_eq!((used.len(), used[0].1), (1, token.expires().as_micros() as u64));

    let folder = founder.folder("second");
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["ca.key", "ca.pem", "client.key", "client.pem", "node.key", "node.pem"]);
    assert_eq!(fs::read_dir(folder.parent().unwrap()).unwrap().count(), 1, "no draft is left behind");
    #[cfg(unix)]
    for key in ["ca.key", "node.key", "client.key"] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(folder.join(key)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let same =
        |name: &str| fs::read(folder.join(name)).unwrap() == fs::read(founder.folder("founder").join(name)).unwrap();
    assert!(same("ca.pem") && same("ca.key") && !same("node.key") && !same("client.key"));

    // They are nodes of one cluster, and a client of the one is one of the other.
    let second = member(&founder.network, &folder, 2);
    assert_eq!(second.ask(&founder.member, b"hello").await.unwrap(), b"hello");
    assert_eq!(founder.member.ask(&second, b"hello").await.unwrap(), b"hello");
    let client = Identity::load(Files::client(&folder), Role::Client, &RealNetwork).unwrap();
    Client::connect(Options::new(founder.member.address(), client).with::<Echo>()).await.unwrap();

    // A third one joins through the second, with a token of the second.
    let token = Authority::of(&second.identity).unwrap().token("tests", HOUR, &RealNetwork).unwrap();
    let unreachable = "127.0.0.1:1".to_owned();
    let outcome = enrol(&founder.network, &token, &[second.address(), unreachable], &founder.folder("third")).await;
    assert_eq!(outcome.unwrap(), Outcome::Enrolled { by: second.address() });
    let third = member(&founder.network, &founder.folder("third"), 3);
    assert_eq!(third.ask(&founder.member, b"hello").await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_token_is_good_once_and_until_it_expires() {
    let founder = Founder::start();
    let token = founder.token(HOUR);
    founder.enrol(&token, "second").await.unwrap();
    let text = why(founder.enrol(&token, "third").await).to_string();
    assert!(text.contains("it was used before"), "{text}");
    assert!(!founder.folder("third").exists());
    until("it is counted", || founder.member.counted("refused_enrolments") == 1).await;
    // The node that has used it need not do so again.
    assert_eq!(founder.enrol(&token, "second").await.unwrap(), Outcome::Before);

    let token = founder.token(Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let error = founder.enrol(&token, "third").await.unwrap_err();
    assert!(matches!(&error, Error::Token(_)) && error.to_string().contains("expired at"), "{error}");
    // By a clock that is behind, too: the node knows.
    let behind: Arc<dyn Network> = Arc::new(Behind);
    let error = enrol(&behind, &token, &[founder.member.address()], &founder.folder("third")).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("does not accept the token: it has expired"), "{error}");
    assert_eq!(founder.member.echo.used.lock().len(), 1);
}

/// The machine's network, with a clock that is an hour behind.
#[derive(Debug)]
struct Behind;

impl Network for Behind {
    fn bind(&self, address: std::net::SocketAddr) -> std::io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        RealNetwork.bind(address)
    }

    fn runtime(&self) -> Arc<dyn quinn::Runtime> {
        RealNetwork.runtime()
    }

    fn resolve<'a>(
        &'a self,
        address: &'a str,
    ) -> ringhold_cluster::network::BoxFuture<'a, std::io::Result<Vec<std::net::SocketAddr>>> {
        RealNetwork.resolve(address)
    }

    fn random(&self, bytes: &mut [u8]) {
        RealNetwork.random(bytes);
    }

    fn wall_us(&self) -> u64 {
        RealNetwork.wall_us() - HOUR.as_micros() as u64
    }

    fn steady_us(&self) -> u64 {
        RealNetwork.steady_us()
    }

    fn crypto_provider(&self) -> Arc<quinn::rustls::crypto::CryptoProvider> {
        RealNetwork.crypto_provider()
    }

    fn time_provider(&self) -> Arc<dyn quinn::rustls::time_provider::TimeProvider> {
        RealNetwork.time_provider()
    }
}

#[tokio::test]
async fn a_token_opens_nothing_but_an_enrolment() {
    let founder = Founder::start();
    let token = founder.token(HOUR);
    let identity = token.identity();
    // No session of a client.
    let error =
        Client::connect(Options::new(founder.member.address(), identity.clone()).with::<Echo>()).await.err().unwrap();
    assert!(matches!(&error, ClientError::Refused { refused: Refused::Token, .. }), "{error}");
    assert!(error.to_string().contains("client.pem"), "{error}");
    // No connection of a node.
    let service: Arc<dyn PeerService> = founder.member.echo.clone();
    let posing = Peers::new(founder.network.clone(), identity.clone(), Arc::downgrade(&service));
    let outcome = posing.call(&founder.member.address(), None, b"hello".into(), SOON).await;
    assert_eq!(refused(outcome), PeerRefused::Certificate);
    // Nor any other first stream.
    for kind in [StreamKind::Request, StreamKind::Lane, StreamKind::PeerRequest] {
        let connection = founder.member.raw(&identity).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&Preamble::new(kind).to_bytes()).await.unwrap();
        assert_eq!(closed(&connection).await.0, Close::Preamble as u64);
    }
    assert_eq!((founder.member.counted("sessions"), founder.member.counted("peers")), (0, 0));
    // And nobody takes it for a node.
    let any = "127.0.0.1:0".parse().unwrap();
    let posing = transport::server_endpoint(&founder.network, any, &identity, &Arc::default()).unwrap();
    tokio::spawn({
        let posing = posing.clone();
        async move {
            while let Some(incoming) = posing.accept().await {
                let _ = incoming.await;
            }
        }
    });
    let address = posing.local_addr().unwrap().to_string();
    let error = founder.member.peers.call(&address, None, b"hello".into(), SOON).await.unwrap_err();
    assert!(error.to_string().contains("certificate is not acceptable"), "{error}");
    // Afterwards it is still good for what it is good for.
    founder.enrol(&token, "second").await.unwrap();
}

#[tokio::test]
async fn other_certificates_do_not_enrol() {
    let founder = Founder::start();
    let folder = founder.folder("founder");
    let client = Identity::load(Files::client(&folder), Role::Client, &RealNetwork).unwrap();
    for identity in [client, node(&folder)] {
        let connection = founder.member.raw(&identity).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        let request =
            [&Preamble::new(StreamKind::Enrol).to_bytes()[..], &[2, 0, 0, 0, wire::VERSION as u8, wire::VERSION as u8]]
                .concat();
        send.write_all(&request).await.unwrap();
        let (code, reason) = closed(&connection).await;
        assert_eq!(code, Close::Refused as u64);
        assert!(reason.contains("not a join token's"), "{reason}");
    }
    // Another authority's token leads nowhere.
    let other = Founder::start();
    let error = founder.enrol(&other.token(HOUR), "second").await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("not of the token's cluster"), "{error}");
    // A node that takes no part in a cluster has nothing to give, whoever asks.
    let alone = Node::start(Arc::new(RealNetwork));
    let token = alone.authority.token("alone", HOUR, &RealNetwork).unwrap();
    let addresses = [alone.server.address().to_string()];
    let outcome = enrol(&founder.network, &token, &addresses, &founder.folder("second")).await;
    assert_eq!(why(outcome), EnrolRefused::Alone);
    assert!(founder.member.echo.used.lock().is_empty());
}

#[tokio::test]
async fn a_request_that_is_not_what_it_seems_is_refused_and_uses_no_token() {
    let founder = Founder::start();
    let identity = founder.token(HOUR).identity();
    let request = |version: u16, key: [u8; 32]| {
        let request = ringhold_cluster::wire::encode(&(version, version, key, vec![7u8; 64])).unwrap();
        [&Preamble::new(StreamKind::Enrol).to_bytes()[..], &request].concat()
    };
    let current = ringhold_cluster::wire::VERSION;
    for (bytes, says) in [
        (request(current, [9; 32]), "not signed with its own key"),
        (request(900, [9; 32]), "versions 900 to 900"),
        (
            [
                &Preamble::new(StreamKind::Enrol).to_bytes()[..],
                &[3, 0, 0, 0, wire::VERSION as u8, wire::VERSION as u8, 9],
            ]
            .concat(),
            "not valid",
        ),
    ] {
        let connection = founder.member.raw(&identity).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let (code, reason) = closed(&connection).await;
        assert_eq!(code, Close::Refused as u64, "{reason}");
        assert!(reason.contains(says), "{reason}");
    }
    assert!(founder.member.echo.used.lock().is_empty());
}

#[tokio::test]
async fn a_node_without_the_authoritys_key_says_what_to_do_and_another_is_asked() {
    let founder = Founder::start();
    let token = founder.token(HOUR);
    let other = founder.token(HOUR);
    founder.enrol(&token, "second").await.unwrap();
    let second = member(&founder.network, &founder.folder("second"), 2);
    fs::remove_file(founder.folder("founder").join("ca.key")).unwrap();
    let text = why(founder.enrol(&other, "third").await).to_string();
    assert!(text.contains("ca.key") && text.contains("node.ringhold"), "{text}");
    let addresses = [founder.member.address(), second.address()];
    let outcome = enrol(&founder.network, &other, &addresses, &founder.folder("third")).await.unwrap();
    assert_eq!(outcome, Outcome::Enrolled { by: second.address() });
}

#[tokio::test]
async fn a_folder_that_has_something_else_is_left_as_it_is() {
    let founder = Founder::start();
    let token = founder.token(HOUR);
    let folder = founder.folder("second");
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    Authority::open_or_create(&folder, &RealNetwork).unwrap();
    let before = fs::read(folder.join("node.pem")).unwrap();
    let error = founder.enrol(&token, "second").await.unwrap_err();
    assert!(matches!(&error, Error::AnotherAuthority { .. }), "{error}");
    assert!(error.to_string().contains("belongs to another cluster"), "{error}");
    assert_eq!(fs::read(folder.join("node.pem")).unwrap(), before);
    fs::remove_file(folder.join("ca.pem")).unwrap();
    let error = founder.enrol(&token, "second").await.unwrap_err();
    assert!(matches!(&error, Error::NotEmpty { .. }), "{error}");
    // An empty one will do.
    fs::create_dir_all(founder.folder("third")).unwrap();
    founder.enrol(&token, "third").await.unwrap();
    node(&founder.folder("third"));
}
