//! HTTP/1.1 for one request at a time: what the boot service is asked and told. Names are not resolved and there is no TLS
//! here; what is fetched is checked by its own signature.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Connecting, and each read and write.
const PATIENCE: Duration = Duration::from_secs(20);
const MOST_HEAD_BYTES: usize = 16 << 10;
/// Plans and answers are small; files go elsewhere, piece by piece.
const MOST_BODY_BYTES: u64 = 64 << 10;

/// `http://ADDRESS:PORT/PATH`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    server: SocketAddr,
    host: String,
    path: String,
}

impl Url {
    /// None for anything but a numeric address.
    pub(crate) fn parse(text: &str) -> Option<Url> {
        let rest = text.strip_prefix("http://")?;
        let (host, path) = rest.split_once('/').map_or((rest, ""), |(h, p)| (h, p));
        let server = host.parse().ok().or_else(|| Some(SocketAddr::new(host.parse().ok()?, 80)))?;
        let fine = path.bytes().all(|b| b.is_ascii_graphic());
        fine.then(|| Url { server, host: host.to_owned(), path: format!("/{}", path.trim_end_matches('/')) })
    }

    /// A page below this one.
    pub(crate) fn join(&self, path: &str) -> Url {
        Url { path: format!("{}/{path}", self.path.trim_end_matches('/')), ..self.clone() }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

/// The status and what follows the head.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Bytes of the body, where the server says so.
    pub(crate) length: Option<u64>,
    body: io::Chain<io::Cursor<Vec<u8>>, TcpStream>,
}

impl Answer {
    pub(crate) fn text(self) -> io::Result<String> {
        let most = self.length.unwrap_or(MOST_BODY_BYTES).min(MOST_BODY_BYTES);
        let mut bytes = Vec::new();
        self.body.take(most).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Copies the body, which has to be whole.
    pub(crate) fn copy_to(self, to: &mut impl Write) -> io::Result<u64> {
        let length = self.length.ok_or(io::ErrorKind::InvalidData)?;
        match io::copy(&mut self.body.take(length), to)? {
            copied if copied == length => Ok(copied),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

pub(crate) fn get(url: &Url) -> io::Result<Answer> {
    ask(url, "GET", "")
}

pub(crate) fn post(url: &Url, json: &str) -> io::Result<Answer> {
    ask(url, "POST", json)
}

fn ask(url: &Url, method: &str, body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&url.server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        url.path,
        url.host,
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(at) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        let length = stream.read(&mut buffer)?;
        if length == 0 || seen.len() > MOST_HEAD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        seen.extend(&buffer[..length]);
    };
    let rest = seen.split_off(end + 4);
    let (status, length) = head(&String::from_utf8_lossy(&seen)).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, length, body: io::Cursor::new(rest).chain(stream) })
}

/// Status and length of the body. Chunked bodies are not understood: the boot service sends none.
fn head(text: &str) -> Option<(u16, Option<u64>)> {
    let mut lines = text.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let mut length = None;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.trim().parse().ok()?),
            "transfer-encoding" => return None,
            _ => {}
        }
    }
    Some((status, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn addresses() {
        let url = Url::parse("http://10.0.0.1:8069").unwrap();
        assert_eq!(url.join("boot/v1/plan").to_string(), "http://10.0.0.1:8069/boot/v1/plan");
        assert_eq!(
            Url::parse("http://[::1]:8069/a/").unwrap().join("b").to_string(),
            "http://[::1]:8069/a/b"
        );
        assert_eq!(Url::parse("http://10.0.0.1/").unwrap().server.port(), 80);
        for wrong in
            ["", "https://10.0.0.1", "http://", "http://name:1", "http://1.1.1.1:99999", "http://1.1.1.1/a b"]
        {
            assert_eq!(Url::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn heads() {
        assert_eq!(head("HTTP/1.1 204 No Content\r\nx: y"), Some((204, None)));
        assert_eq!(head("HTTP/1.0 200 OK\r\ncontent-LENGTH:  7"), Some((200, Some(7))));
        for wrong in [
            "",
            "HTTP/2 200",
            "HTTP/1.1 x",
            "HTTP/1.1 200 OK\r\nContent-Length: x",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
        ] {
            assert_eq!(head(wrong), None, "{wrong}");
        }
    }

    /// Answers one request with `reply`, and says what was asked.
    fn once(reply: &'static str) -> (Url, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        });
        (url, server)
    }

    #[test]
    fn one_exchange() {
        let (url, server) = once("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef");
        let answer = post(&url.join("x"), "{}").unwrap();
        assert_eq!((answer.status, answer.text().unwrap().as_str()), (200, "abc"));
        let asked = server.join().unwrap();
        assert!(
            asked.starts_with("POST /x HTTP/1.1\r\n") && asked.ends_with("Content-Length: 2\r\n\r\n{}"),
            "{asked}"
        );
    }

    #[test]
    fn a_transfer_that_breaks_off_is_an_error() {
        let (url, server) = once("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
        let mut out = Vec::new();
        assert!(get(&url).unwrap().copy_to(&mut out).is_err());
        server.join().unwrap();
        let (url, server) = once("nonsense\r\n\r\n");
        assert!(get(&url).is_err());
        server.join().unwrap();
    }
}
