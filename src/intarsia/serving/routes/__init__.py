"""The routes, one module per group."""

from __future__ import annotations

from fastapi import APIRouter

from intarsia.serving.routes import catalogue, compositions, credit, health, images, ledger, owners, payouts, principals

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    images.router,
    compositions.router,
    catalogue.router,
    credit.router,
    ledger.router,
    owners.router,
    payouts.router,
    principals.router,
)
