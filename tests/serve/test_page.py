"""The page: served as it is, and it asks nobody but its server."""

import re

import serving  # noqa: F401 (skips where the extra is not installed)


def test_the_page_is_there_and_asks_only_its_server(server):
    response = server.client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "connect-src 'self'" in response.headers["content-security-policy"]
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)|(https?://[^"'\s]+)|fetch\(["']([^"']+)""", response.text)
    named = {next(filter(None, found)) for found in addresses}
    assert named <= {"data:,", "/v1/models", "http://www.w3.org/2000/svg"}
