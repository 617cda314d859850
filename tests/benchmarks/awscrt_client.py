"""Amazon's Common Runtime, driven directly: awscrt_client.py put|get ENDPOINT CA BUCKET/KEY FILE CONNECTIONS PART_MIB

boto3 gives the CRT neither an endpoint nor a certificate authority and uses it on a few instance types only, so this is
the CRT at its best. The payload is not signed and has no checksum, as nothing else is the CRT's default.
"""

import os
import sys
import urllib.parse

from awscrt.auth import AwsCredentialsProvider
from awscrt.http import HttpHeaders, HttpRequest
from awscrt.io import ClientBootstrap, ClientTlsContext, DefaultHostResolver, EventLoopGroup, TlsContextOptions
from awscrt.s3 import S3Client, S3RequestTlsMode, S3RequestType, create_default_s3_signing_config

MIB = 1024 * 1024
# Connections come from the limit that is given, not from a guess at this machine's network.
GIGABITS = 100.0

what, endpoint, ca, place, file, connections, part = sys.argv[1:]
tls = TlsContextOptions()
tls.override_default_trust_store_from_path(ca_filepath=ca)
group = EventLoopGroup()
client = S3Client(
    bootstrap=ClientBootstrap(group, DefaultHostResolver(group)),
    region="us-east-1",
    signing_config=create_default_s3_signing_config(
        region="us-east-1", credential_provider=AwsCredentialsProvider.new_default_chain()
    ),
    tls_mode=S3RequestTlsMode.ENABLED,
    tls_connection_options=ClientTlsContext(tls).new_connection_options(),
    part_size=int(part) * MIB,
    throughput_target_gbps=GIGABITS,
    max_active_connections_override=int(connections),
)
headers = HttpHeaders([("Host", urllib.parse.urlsplit(endpoint).netloc)])
if what == "put":
    headers.add("Content-Length", str(os.path.getsize(file)))
    headers.add("Content-Type", "application/octet-stream")
    request = client.make_request(
        type=S3RequestType.PUT_OBJECT, request=HttpRequest("PUT", "/" + place, headers), send_filepath=file
    )
else:
    request = client.make_request(
        type=S3RequestType.GET_OBJECT, request=HttpRequest("GET", "/" + place, headers), recv_filepath=file
    )
request.finished_future.result()
