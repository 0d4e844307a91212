//! The Hugging Face hub, through candle-datasets.
//!
//! candle-datasets gives images as f32 tensors of `v / 255`, decoded from PNG in Parquet. The IDX files are rebuilt from
//! them, and the pinned checksums show that every byte came back.

use super::{Source, bounded};
use crate::error::DataError;
use crate::idx::{Header, Kind};
use candle_core::{DType, Tensor};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

/// The folder of the data set in the hub's own cache.
const CACHED_REPOSITORY: &str = "datasets--zalando-datasets--fashion_mnist";

/// The data set on the hub.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Whom to ask for a connection before anything else; `None` for the endpoint that the hub's client will use
    /// (`$HF_ENDPOINT` or its default). The client itself reads the environment alone.
    pub endpoint: Option<String>,
    /// A proxy, which is then asked for the connection instead.
    pub proxy: Option<String>,
    /// How long the connection may take. Without it the client would retry for minutes on a machine with no network.
    pub connect_timeout: Duration,
    /// How long everything may take; a download that overruns is left to itself and ignored.
    pub timeout: Duration,
}

impl Hub {
    /// The endpoint and proxy of the environment, 4 seconds for the connection and three minutes for the 36 MB.
    pub fn from_environment() -> Self {
        let proxy = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
            .into_iter()
            .find_map(|name| crate::locate::variable(name)?.into_string().ok());
        Hub {
            endpoint: None,
            proxy,
            connect_timeout: Duration::from_secs(4),
            timeout: Duration::from_secs(180),
        }
    }

    fn probe(&self) -> Result<(), DataError> {
        let client = hf_hub::HFClient::builder()
            .build()
            .map_err(|error| DataError::HubFailed {
                reason: error.to_string(),
            })?;
        if self.endpoint.is_none() && client.cache_dir().join(CACHED_REPOSITORY).is_dir() {
            // Perhaps complete: then no network is needed.
            return Ok(());
        }
        let endpoint = self
            .proxy
            .clone()
            .or_else(|| self.endpoint.clone())
            .unwrap_or_else(|| client.endpoint().to_string());
        let unreachable = |reason: String| DataError::HubUnreachable {
            endpoint: endpoint.clone(),
            reason,
        };
        let (host, port) = authority(&endpoint)
            .ok_or_else(|| unreachable("expected a URL such as https://host:port".into()))?;
        let limit = self.connect_timeout;
        // On a thread, because resolving a name has no timeout of its own.
        bounded::call(&format!("connecting to {endpoint}"), limit, move || {
            connect(&host, port, limit)
        })?
        .map_err(|error| unreachable(error.to_string()))
    }
}

impl Source for Hub {
    fn name(&self) -> String {
        "Hugging Face hub".into()
    }

    fn fetch(&self, _scratch: &Path) -> Result<[Vec<u8>; 4], DataError> {
        self.probe()?;
        let failed = |error: candle_core::Error| DataError::HubFailed {
            reason: error.to_string(),
        };
        let data = bounded::call(
            "downloading from the hub",
            self.timeout,
            candle_datasets::vision::fashion_mnist::load,
        )?
        .map_err(failed)?;
        let images = |tensor| rebuild_images(tensor).map_err(failed);
        let labels = |tensor| rebuild_labels(tensor).map_err(failed);
        Ok([
            images(&data.train_images)?,
            labels(&data.train_labels)?,
            images(&data.test_images)?,
            labels(&data.test_labels)?,
        ])
    }
}

fn connect(host: &str, port: u16, limit: Duration) -> std::io::Result<()> {
    let mut last = std::io::Error::other("the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Host and port of a URL; the port follows from the scheme where it is not given.
fn authority(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_port = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let default = match scheme {
        "https" => 443,
        "socks5" | "socks5h" => 1080,
        _ => 80,
    };
    let (host, port) = match host_port.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match host_port.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host_port, None),
        },
    };
    let port = port.map_or(Some(default), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_string(), port))
}

/// The IDX file of images (N, 784) or (N, 28, 28) given as f32 in 0 to 1.
fn rebuild_images(images: &Tensor) -> candle_core::Result<Vec<u8>> {
    let count = images.dim(0)?;
    let values = images
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    let mut bytes = Header::encode(Kind::Images, count as u32);
    bytes.extend(values.iter().map(|value| (value * 255.0).round() as u8));
    Ok(bytes)
}

/// The IDX file of labels (N).
fn rebuild_labels(labels: &Tensor) -> candle_core::Result<Vec<u8>> {
    let mut bytes = Header::encode(Kind::Labels, labels.dim(0)? as u32);
    bytes.extend(labels.to_dtype(DType::U8)?.to_vec1::<u8>()?);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idx::IdxFile;
    use candle_core::Device;

    #[test]
    fn authority_takes_every_form_of_url() {
        let cases = [
            ("https://a.example", Some(("a.example", 443))),
            ("https://a.example/", Some(("a.example", 443))),
            ("http://a.example/mirror?x=1", Some(("a.example", 80))),
            (
                "http://user:secret@a.example:8080/",
                Some(("a.example", 8080)),
            ),
            ("a.example:3128", Some(("a.example", 3128))),
            ("http://[::1]:9/", Some(("::1", 9))),
            ("http://[::1]", Some(("::1", 80))),
            ("socks5://a.example", Some(("a.example", 1080))),
            ("http://a.example:port", None),
            ("https://", None),
            ("", None),
        ];
        for (url, expected) in cases {
            let expected = expected.map(|(host, port)| (host.to_string(), port));
            assert_eq!(authority(url), expected, "{url}");
        }
    }

    /// candle-datasets divides by multiplying with the rounded 1 / 255, so every value has to survive that.
    #[test]
    fn every_pixel_value_survives_the_way_through_f32() -> Result<(), Box<dyn std::error::Error>> {
        let pixels: Vec<u8> = (0..4 * 784).map(|i| (i % 256) as u8).collect();
        let tensor = Tensor::from_vec(pixels.clone(), (4, 784), &Device::Cpu)?;
        let images = (tensor.to_dtype(DType::F32)? / 255.)?;
        let file = IdxFile::parse(rebuild_images(&images)?, Kind::Images, Path::new("rebuilt"))?;
        assert_eq!(file.count(), 4);
        assert_eq!(file.data(), pixels);

        let labels = Tensor::new(&[3u8, 9, 0], &Device::Cpu)?;
        let file = IdxFile::parse(rebuild_labels(&labels)?, Kind::Labels, Path::new("rebuilt"))?;
        assert_eq!(file.data(), [3, 9, 0]);
        Ok(())
    }
}
