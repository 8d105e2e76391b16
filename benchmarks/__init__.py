"""Measurements of speed and quality, in the environment of the service.

serve_app.pipelines comes before torch, as on replicas: it sets how torch takes large memory.
"""

import serve_app.pipelines  # noqa: F401
