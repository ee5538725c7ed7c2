//! A new certificate for the built-in worker is a reload, and loses nothing.

use relisten_e2e::load::{Load, lab};
use relisten_e2e::{Kind, Relisten, Scene, Test, rounds, seconds};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8443);

/// Who signs the certificates, and where they are put.
struct Authority<'a> {
    scene: &'a Scene,
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl<'a> Authority<'a> {
    fn new(scene: &'a Scene) -> Self {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let issuer = rcgen::CertifiedIssuer::self_signed(parameters, key).expect("an authority");
        scene.write("ca.pem", &issuer.pem());
        Self { scene, issuer }
    }

    fn file(&self) -> PathBuf {
        self.scene.directory().join("ca.pem")
    }

    /// A new key and a new certificate for 127.0.0.1, put where the workers look.
    fn renew(&self) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()])
            .and_then(|parameters| parameters.signed_by(&key, &self.issuer))
            .expect("a certificate");
        self.scene.write("cert.pem", &certificate.pem());
        self.scene.write("key.pem", &key.serialize_pem());
        certificate.der().clone()
    }

    fn start(&self, workers: usize) -> Relisten {
        let options = ["--listen", &ADDRESS.to_string(), "--tls-cert", "cert.pem", "--tls-key", "key.pem"];
        self.scene.relisten().options(options).workers(workers).start()
    }

    /// 64 clients that check the certificate, each request on a new connection with a whole handshake.
    fn load(&self) -> Load {
        let mut plan = relisten_e2e::load::plan(ADDRESS, "/.relisten");
        plan.target.tls = true;
        plan.trust = lab::Trust::File(self.file());
        Load::start(plan)
    }

    /// What a client that comes now is shown. It trusts this authority and nobody else.
    fn shown(&self) -> CertificateDer<'static> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file()).expect("the authority")).expect("usable");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut session =
            ClientConnection::new(Arc::new(config), ServerName::from(ADDRESS.ip())).expect("a session");
        let mut stream = TcpStream::connect(ADDRESS).expect("connect");
        stream.set_read_timeout(Some(seconds(10))).expect("set a timeout");
        while session.is_handshaking() {
            session.complete_io(&mut stream).expect("a handshake");
        }
        session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .expect("a certificate")
            .clone()
            .into_owned()
    }

    /// Every client is shown this one: enough ask that each worker is asked.
    #[track_caller]
    fn assert_shown(&self, expected: &CertificateDer<'_>) {
        for _ in 0..20 {
            assert!(self.shown() == *expected, "another certificate than the one that is in force is shown");
        }
    }
}

/// The certificate is replaced under load, again and again. After each reload every new connection is shown the new one.
#[test]
fn a_new_certificate_is_a_reload() {
    Test::new().server(Kind::BuiltIn).limit(seconds(rounds(60, 120))).run(|scene| {
        let authority = Authority::new(scene);
        let mut current = authority.renew();
        let relisten = authority.start(2);
        let load = authority.load();
        authority.assert_shown(&current);
        let reloads = rounds(4, 30);
        for round in 1..=reloads {
            let before = current;
            current = authority.renew();
            assert!(current != before, "the authority has made the same certificate twice");
            // The file alone changes nothing.
            assert!(authority.shown() == before, "the new certificate is shown before the reload");
            relisten.reload().ok();
            authority.assert_shown(&current);
            load.run_until(seconds(round));
        }
        relisten.settle(2, seconds(30));
        authority.assert_shown(&current);
        let report = load.finish_clean();
        assert_eq!(report.handshake.count, report.connections.started, "not all spoke TLS:\n{report}");
        relisten.stop(seconds(30));
        scene.nothing_left(&[ADDRESS.port()]);
    });
}

/// A certificate that is of no use is a reload that is rolled back: the old one stays in force.
#[test]
fn a_bad_certificate_is_rolled_back() {
    Test::new().server(Kind::BuiltIn).run(|scene| {
        let authority = Authority::new(scene);
        let good = authority.renew();
        let relisten = authority.start(2);
        let load = authority.load();
        let before = relisten.status().pids();
        // A certificate that came half, one whose key is another's, and none at all.
        let whole = std::fs::read_to_string(scene.directory().join("cert.pem")).expect("the certificate");
        let key = rcgen::KeyPair::generate().expect("a key");
        for (file, text, why) in [
            ("cert.pem", &whole[..whole.len() / 2], "cert.pem"),
            ("key.pem", key.serialize_pem().as_str(), "can't be used together"),
            ("cert.pem", "", "holds no certificate"),
        ] {
            let saved = std::fs::read_to_string(scene.directory().join(file)).expect("what is in force");
            scene.write(file, text);
            let reload = relisten.reload();
            assert_eq!(reload.code(), Some(1), "{file}: {reload:?}");
            assert!(reload.text().contains(why), "{file}: {why:?} is not said: {reload:?}");
            authority.assert_shown(&good);
            scene.write(file, &saved);
        }
        let status = relisten.settle(2, seconds(15));
        assert_eq!((status.pids(), status.generation), (before, 1), "{status:#?}");
        load.finish_clean();
        relisten.stop(seconds(20));
        scene.nothing_left(&[ADDRESS.port()]);
    });
}
